"""What is trained of a model: rows of the added tokens and LoRA's factors; and their sharding."""
