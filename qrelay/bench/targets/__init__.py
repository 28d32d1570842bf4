"""What is measured: each service behind its gRPC door, and the whole pipeline; and where their items come from."""
