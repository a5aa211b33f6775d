"""movies"""
