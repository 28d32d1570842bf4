"""The judge: labels the sampled passages of each set. gRPC and queue endpoints; the work is in `qrelay.judging`."""
