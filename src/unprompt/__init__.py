"""Which prompt made this picture?"""
