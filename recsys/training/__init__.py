"""Training of learned models by PyTorch Lightning; counting models need none of it."""
