"""Fixtures for the tests of the page: models, the app and a client."""

import pytest


@pytest.fixture(scope="module")
def models():
    from tests.common.photo.web.visits import tiny  # needs the web extra, as the tests that ask for it do

    return [tiny(0, "one"), tiny(1, "two")]


@pytest.fixture(scope="module")
def app(models):
    from common.photo.web.page import create_app
    from tests.common.photo.web.visits import LIMITS

    return create_app(models, LIMITS)


@pytest.fixture(scope="module")
def client(app):
    from tests.common.photo.web.visits import person

    with person(app) as client:
        yield client
