"""An audit of the private trainer itself: canaries, direct tests, and bounds of epsilon."""
