"""Data: synthesis of training images, twins of the papers' datasets, and the adapters that read twin and real alike."""
