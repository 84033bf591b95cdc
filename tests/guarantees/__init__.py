"""One file for each row of the guarantees in ``README.md``: the tests that show what is promised there, end to end."""
