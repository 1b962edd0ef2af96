"""The GPU path without Ray and DeepSpeed: parity with the CPU, speed and memory."""
