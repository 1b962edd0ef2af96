"""Private parts of Ray, DeepSpeed, torch and transformers, one small function per use."""
