"""What a run takes, before it runs: parts, FLOPs, memory; nothing is computed."""
