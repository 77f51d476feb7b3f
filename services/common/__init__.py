"""Leaf kits that every service may use and that know no service."""
