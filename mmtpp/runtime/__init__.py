"""What every driver needs from the cluster: Ray, machines, hardware, progress, interruptions."""
