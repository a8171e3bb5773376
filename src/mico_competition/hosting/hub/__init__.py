"""Downloads challenges from the Hugging Face Hub, and publishes releases to it."""
