"""A reader of 8-byte frames: as many as the first frame says (decimal digits), then their number is answered."""

from collections.abc import Generator

from eighties import App, aio
from eighties.streams import Socket

app = App()


def handle(sock: Socket) -> None:
    def reader() -> Generator[int, bytes, None]:
        left = int((yield 8))
        count = 0
        while count < left:
            yield 8
            count += 1
        sock.write(b"%08d" % count)

    aio.buffered_cor(sock, reader)


aio.add_protocol_handler("frames", matches=lambda data: data[:1].isdigit(), handle=handle)
