class I:
    def to_json(self): return {}
    def table(self): return "stub"
    def mismatch(self): return None
def inspect(file, name): return I()
