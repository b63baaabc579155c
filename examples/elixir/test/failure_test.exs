defmodule SnakepitWorker.FailureTest do
  use ExUnit.Case, async: true

  alias SnakepitWorker.Failure

  defp unary(name), do: name |> FromTheWorker.text() |> FromTheWorker.unary() |> decoded()
  defp stream(name), do: name |> FromTheWorker.text() |> FromTheWorker.stream() |> decoded()

  defp decoded(error) do
    assert {:ok, %Failure{} = failure} = Failure.decode(error)
    failure
  end

  @violations [
    %{field: "articel", description: "unknown argument; did you mean article?"},
    %{field: "quantity", description: "expected int, got \"zwölf\""}
  ]

  test "wrong arguments are named" do
    failure = unary("wrong_arguments")
    assert failure.type == "ValueError"
    assert failure.message =~ "wrong arguments for shop.price"
    assert {failure.code, failure.category} == {"INVALID_ARGUMENT", "validation"}
    assert failure.violations == @violations
    refute failure.retryable
    assert failure.retry_after_ms == nil
    assert {failure.tool, failure.session_id} == {"shop.price", "session_2_1795334162543942"}
    assert failure.error_id == String.duplicate("0", 32)
    assert failure.correlation_id == "sp-0d11d67e0ed7f6651e74e2c1"
    assert failure.traceback =~ "Traceback (most recent call last)"
    assert Exception.message(failure) == "INVALID_ARGUMENT ValueError: #{failure.message}"
  end

  test "the same is in the status of a stream" do
    assert stream("stream_wrong_arguments") == unary("wrong_arguments")
  end

  test "a provider's refusal says when to come again" do
    failure = unary("rate_limit")
    assert failure.type == "RateLimitError"
    assert {failure.code, failure.category} == {"RESOURCE_EXHAUSTED", "provider"}
    assert {failure.retryable, failure.retry_after_ms} == {true, 2500}
    assert failure.details == %{"provider" => "openai", "status" => 429, "limits" => [60.5, nil]}
    assert failure.help == "wait, or ask for more"
    assert failure.cause == [%{type: "HTTPStatusError", message: "429 Too Many Requests"}]
    assert failure.violations == []
  end

  test "what does not fit into the status of a stream is left out" do
    failure = stream("stream_too_long")
    assert String.starts_with?(failure.message, "größer ")
    assert String.ends_with?(failure.message, "…")
    assert failure.code == "INTERNAL"
    assert failure.error_id == String.duplicate("0", 32)
    assert {failure.details, failure.violations, failure.traceback} == {%{}, [], nil}
    assert {failure.tool, failure.session_id} == {nil, nil}
  end

  test "Snakepit's own program says less" do
    text = ~s({"type": "KeyError", "message": "'tea'", "stacktrace": ["a\\n", "b\\n"]})
    failure = text |> FromTheWorker.unary() |> decoded()
    assert {failure.type, failure.message} == {"KeyError", "'tea'"}
    assert {failure.code, failure.category, failure.retryable} == {"UNKNOWN", "internal", false}
    assert failure.traceback == "a\nb\n"
    assert {failure.error_id, failure.tool} == {nil, nil}
  end

  test "oddities do no harm" do
    for context <- [nil, "text", %{"error" => "text"}, %{"error" => %{"violations" => %{}}}] do
      reason = %Snakepit.Error.PythonException{
        python_type: "Odd",
        message: "",
        context: context
      }

      assert %Failure{type: "Odd", violations: [], details: %{}} = decoded(reason)
    end

    facts = %{"violations" => [7, %{"field" => "a"}], "details" => [], "cause" => nil}

    reason = %Snakepit.Error.ValueError{
      python_type: "ValueError",
      message: "no",
      context: %{"error" => facts}
    }

    assert %Failure{violations: [], details: %{}, cause: []} = decoded(reason)
  end

  test "other errors are none of the worker's" do
    for reason <- [
          :timeout,
          :worker_busy,
          "plain text",
          {:callback_exception, %RuntimeError{}, []},
          %RuntimeError{message: "ours"},
          %GRPC.RPCError{status: 4, message: "Deadline Exceeded"},
          %GRPC.RPCError{status: 13, message: "[1, 2]"},
          %GRPC.RPCError{status: 13, message: "{\"type\": 7, \"message\": \"\"}"},
          %GRPC.RPCError{status: 14, message: nil},
          %Snakepit.Error.ValueError{message: "made in Elixir"}
        ] do
      assert Failure.decode(reason) == :error
      assert Failure.decode(FromTheWorker.wrapped(reason, "shop.price")) == :error
    end

    assert Failure.decode(%Snakepit.Error{category: :pool, message: "", details: %{}}) == :error
  end
end
