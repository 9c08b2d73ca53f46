"""A model changes nothing of the user's: neither content nor name nor mode."""


def destroys(folder):
    def model(live_features):
        import os
        import shutil

        import pandas

        import numerai_predict

        places = [f"{folder}/model.pkl", f"{folder}/live.parquet", f"{folder}/out", folder]
        places += [numerai_predict.__file__, os.path.dirname(pandas.__file__)]
        done = []
        for path in places:
            ways = {
                "write": lambda path=path: open(path, "ab").close(),
                "truncate": lambda path=path: os.truncate(path, 0),
                "remove": lambda path=path: os.unlink(path),
                "remove the folder": lambda path=path: os.rmdir(path),
                "rename": lambda path=path: os.rename(path, f"{path}.old"),
                "take": lambda path=path: os.rename(path, "mine"),
                "link": lambda path=path: os.link(path, "link"),
                "fill": lambda path=path: open(f"{path}/new", "w").close(),
                "link there": lambda path=path: os.symlink(
                    "/etc/passwd", f"{path}/live_predictions-0.csv"
                ),
                "empty": lambda path=path: shutil.rmtree(path),
            }
            for name, way in ways.items():
                try:
                    way()
                    done.append((name, path))
                except OSError:
                    pass
            for mode in (0, 0o777):
                try:
                    os.chmod(path, mode)
                    os.utime(path, (0, 0))
                except OSError:
                    pass
        for fd in range(3, 20):
            try:
                os.ftruncate(fd, 0)
                done.append(("ftruncate", fd))
            except OSError:
                pass
        raise ValueError(f"did {done}")

    return model


def test_nothing_changes(attack, tmp_path):
    def state():
        return [
            (path.name, path.stat().st_mode, path.stat().st_size, path.stat().st_uid)
            for path in [tmp_path, *sorted(tmp_path.rglob("*"))]
        ]

    model = destroys(str(tmp_path))
    assert "ValueError: did []" in attack(model, code=1).log
    before = state()
    attack(model, code=1)
    assert state() == before
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777
    assert (tmp_path / "live.parquet").stat().st_mtime > 1
