"""Proposes an import map: facts of the columns, one table of rules, questions for the user."""
