"""What is measured: each service over gRPC, and the whole pipeline; and where their items come from."""
