import logging


def configure_logging() -> None:
    logging.basicConfig()


def get_logger(name: str) -> logging.Logger:
    return logging.getLogger(name)
