"""Private parts of Ray, DeepSpeed, torch and transformers, one small function per use.

One module per library: ``ray_hooks``, ``deepspeed_hooks``, ``torch_hooks``, ``transformers_hooks``;
and ``torch_backend``, torch's process group for Ray Train.
"""
