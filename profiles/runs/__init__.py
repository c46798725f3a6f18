"""A run: driven, recorded, evaluated, kept in a folder, repeated by a sweep.

Read `measure`, then `composition`.
"""
