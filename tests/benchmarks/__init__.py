"""Measurements that anyone can repeat; no tests."""
