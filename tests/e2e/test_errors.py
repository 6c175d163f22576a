"""Mistakes a client makes, as OpenAI's SDK reports them."""

import openai
import pytest

ASK = [{"role": "user", "content": "Hello"}]


@pytest.mark.direct
def test_a_wrong_key_is_an_authentication_error(endpoint):
    with endpoint.client(api_key="sk-sluice-wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model=endpoint.model, messages=ASK)
    assert caught.value.status_code == 401
    assert caught.value.body["message"]
    assert "sk-sluice-wrong" not in caught.value.response.text, "an error never repeats a credential"


def test_a_missing_key_is_an_authentication_error(gateway):
    answer = gateway.http.get("/v1/models", headers={"authorization": ""})
    assert answer.status_code == 401
    assert answer.json()["error"]["message"]


def test_a_key_is_also_taken_from_the_other_vendors_headers(gateway):
    for header in ("x-api-key", "api-key", "x-goog-api-key"):
        answer = gateway.http.get("/v1/models", headers={"authorization": "", header: gateway.key})
        assert answer.status_code == 200, header


def test_an_unknown_model_is_a_not_found_error(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=ASK)
    assert caught.value.code == "model_not_found"
    assert "no-such-model" in caught.value.body["message"]


def test_an_unknown_model_cannot_be_retrieved(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("no-such-model")
    assert caught.value.code == "model_not_found"


def test_a_known_model_is_retrieved(client, endpoint):
    assert client.models.retrieve(endpoint.model).id == endpoint.model


@pytest.mark.direct
def test_a_bad_body_is_a_bad_request_error(client, endpoint):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=endpoint.model, messages="not a list")
    assert caught.value.body["message"]


@pytest.mark.direct
def test_a_bad_body_of_a_stream_is_an_error_before_the_first_event(client, endpoint):
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=endpoint.model, messages="not a list", stream=True)


def test_errors_have_openais_shape_and_a_request_id(gateway):
    for body in ({"model": "no-such-model", "messages": ASK}, {"messages": ASK}):
        answer = gateway.http.post("/v1/chat/completions", json=body)
        assert answer.status_code in (400, 404)
        error = answer.json()["error"]
        assert set(error) >= {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"]
        assert answer.headers["content-type"].startswith("application/json")
