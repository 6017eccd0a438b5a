"""A paper of one network, as small as a paper can be: what CONTRIBUTING.md describes, for tests/papers/test_toy_paper.py."""
