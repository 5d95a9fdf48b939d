"""CARL: pretraining, and its agent of Phase 3."""
