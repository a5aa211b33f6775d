"""initial_volume"""
