"""The lines of the jobs' logs that the demo prints."""

from cluster.demo import JOB_LINES, SWEEP_LINES

LINES = {
    "13:44:08 INFO mmtpp.train.launch: 40 steps": (True, False),
    "(RayTrainWorker pid=7) step 10/40, loss 2.5, 900 tokens/s": (True, False),
    "13:44:08 INFO mmtpp.sweep.sweep_progress: of 6 trials 1 finished": (False, True),
    "13:44:08 INFO mmtpp.sweep.tuner: resuming the trials in s3://b/tune-0": (False, True),
    "| lora.rank | status |": (False, True),
    "13:44:08 WARNING mmtpp.track.mlflow_tracker: MLflow is away": (True, True),
    "error: no such key": (True, True),
    "(pid=7) some library | chatting": (False, False),
}


def test_a_job_prints_its_steps_and_a_sweep_its_trials():
    for line, printed in LINES.items():
        assert (bool(JOB_LINES.search(line)), bool(SWEEP_LINES.search(line))) == printed, line
