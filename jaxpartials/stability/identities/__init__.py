"""Identities of real numbers: to the left what loses accuracy, to the right what does not."""
