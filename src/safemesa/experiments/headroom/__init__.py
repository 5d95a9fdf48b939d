"""What a critic that was not adapted lacks beside oracles."""
