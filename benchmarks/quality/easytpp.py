"""Settings of EasyTPP's networks, the same for all models."""

from typing import Any

TRAIN_POINTS = 20  # number of points of the intensity's integral in training
DRAWS = 100  # number of samples per interval; their mean is the prediction
SCORES_TICKS = "IntensityFree"  # scored by probabilities of ticks, see ``tick_likelihood.py``
SPREADS_TICKS = ("FullyNN", "ODETPP", "S2P2")
"""Models whose density can rise on every whole tick of the clock: their intervals are spread over
the tick, see ``neural.py``. The intensities of the others rise or fall slowly between events."""


def model_settings() -> dict[str, Any]:
    """EasyTPP's settings of a network."""
    return {
        "hidden_size": 64,
        "time_emb_size": 16,
        "use_ln": False,
        "num_layers": 2,
        "num_heads": 2,
        "mc_num_sample_per_step": 20,
        "sharing_param_layer": False,
        "loss_integral_num_sample_per_step": TRAIN_POINTS,
        "use_mc_samples": False,
        "dropout": 0.0,
        "model_specs": {
            "num_mix_components": 16,  # IntensityFree
            "num_mlp_layers": 2,
            "proper_marked_intensities": True,  # FullyNN
            "ode_num_sample_per_step": 2,  # ODETPP
            "P": 64,  # S2P2
        },
        "thinning": {
            "num_seq": 10,
            "num_sample": DRAWS,
            "num_exp": 100,
            "look_ahead_time": 10,
            "patience_counter": 5,
            "over_sample_rate": 5,
            "num_samples_boundary": 5,
            "dtime_max": 10,
            "num_step_gen": 1,
        },
    }
