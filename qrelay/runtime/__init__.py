"""What every service shares: worker, batcher, brokers, gRPC server, telemetry, supervisor."""
