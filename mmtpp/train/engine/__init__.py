"""DeepSpeed behind the few calls of a training: building, sharding and the state of a rank."""
