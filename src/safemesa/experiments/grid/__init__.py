"""Many runs: which, in what order, and where they are carried out."""
