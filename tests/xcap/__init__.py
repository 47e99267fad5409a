"""Tests of comity.xcap."""
