"""What all rooms agree on: errors, sections of configs, streams and the batches they give."""
