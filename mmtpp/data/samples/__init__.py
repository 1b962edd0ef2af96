"""Event store in, packed samples out: plan, assemble, feed."""
