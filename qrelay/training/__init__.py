"""From labels to models that serve: experiments, losses, trainers, evaluation, the gate, jobs and rounds."""
