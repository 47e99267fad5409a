"""Durable stores behind the contract of service/interfaces.py."""
