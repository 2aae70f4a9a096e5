"""Tests of the live runtime; a package, so that they can share moving squares."""
