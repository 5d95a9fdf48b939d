"""Whether a recovery recovers, and which signal says when it must take over."""
