"""Does passt start here? In a container it may not."""
import pathlib
import subprocess
import tempfile

NEEDS = "passt does not start here: it needs a default route and the right to make a user namespace"


def starts():
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(["passt", "-f", "-q", "-4", "-s", pathlib.Path(folder) / "probe"], capture_output=True, timeout=1)
            return False
        except subprocess.TimeoutExpired:  # it waits for a machine
            return True
