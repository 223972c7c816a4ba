# SPDX-License-Identifier: MIT
"""A program in a terminal of its own: what is on its screen, as text and PNG."""
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

import pyte
from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono{}.ttf"
COLOURS = {"black": "1d1f21", "red": "cc3333", "green": "3f9e4d",
           "brown": "c79a1e", "blue": "4271ae", "magenta": "8959a8",
           "cyan": "2a9aa5", "white": "c5c8c6"}
PAPER, INK = (29, 31, 33), (214, 216, 214)


def colour(name, default):
    if name == "default":
        return default
    name = COLOURS.get(name, name)
    return tuple(int(name[i:i + 2], 16) for i in (0, 2, 4))


class Terminal:
    """with Terminal([program, ...], 120, 30) as t: t.wait_for("text")"""

    def __init__(self, command, columns, rows, env=None):
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.status = None
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.environ.update(env or {}, TERM="linux",
                              COLORTERM="truecolor")
            os.environ.pop("NO_COLOR", None)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvp(command[0], command)
        self.resize(columns, rows)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def resize(self, columns, rows):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def read(self, seconds):
        """Take in what comes; false once the program has closed its side."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.fd], [], [], left)[0]:
                return True
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            if not data:
                return False
            self.stream.feed(data)
        return True

    def wait_for(self, wanted, seconds=60):
        """Until the text is there, or the function of the text is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            text = self.text()
            if wanted(text) if callable(wanted) else wanted in text:
                return text
            if not self.read(0.2):
                break
        text = self.text()
        good = wanted(text) if callable(wanted) else wanted in text
        assert good, f"not on the screen: {wanted}\n{text}"
        return text

    def press(self, keys):
        os.write(self.fd, keys.encode())

    def end(self, seconds=60):
        """Its exit status, all it wrote taken in."""
        self.read(seconds)
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def save(self, path, size=14):
        """As it would look; and beside it its text."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fonts = {bold: ImageFont.truetype(FONT.format("-Bold" if bold else ""), size)
                 for bold in (False, True)}
        width = int(round(fonts[False].getlength("M")))
        height = int(size * 1.35)
        picture = Image.new("RGB", (width * self.screen.columns + 16,
                                    height * self.screen.lines + 16), PAPER)
        draw = ImageDraw.Draw(picture)
        for y in range(self.screen.lines):
            for x in range(self.screen.columns):
                cell = self.screen.buffer[y][x]
                ink, paper = colour(cell.fg, INK), colour(cell.bg, PAPER)
                if cell.reverse:
                    ink, paper = paper, ink
                left, upper = 8 + x * width, 8 + y * height
                if paper != PAPER:
                    draw.rectangle((left, upper, left + width - 1,
                                    upper + height - 1), paper)
                if cell.data == "\u2580":
                    draw.rectangle((left, upper, left + width - 1,
                                    upper + height // 2), ink)
                elif cell.data != " ":
                    draw.text((left, upper), cell.data, ink, fonts[cell.bold])
        picture.save(path)
        with open(os.path.splitext(path)[0] + ".txt", "w", encoding="utf-8") as out:
            out.write(self.text() + "\n")
