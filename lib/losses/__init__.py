"""Loss terms that more than one paper uses; what one method alone uses is in its model's file."""
