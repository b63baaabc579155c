defmodule SnakepitWorker do
  @moduledoc """
  Calls tools of snakepit-worker through Snakepit's pool.

      {:ok, module} = SnakepitWorker.call("dspy.predict", %{signature: "q -> a"}, session_id: "ann")

  `call/3` and `stream/4` are `Snakepit.execute/3` and `Snakepit.execute_stream/4` with two
  differences.

  ## Sessions

  Snakepit uses the option `:session_id` to choose the worker that served the session last, and
  does not send it on. The worker looks for it in the arguments. These functions put it into both
  places, whether it comes as an option or among the arguments.

  Where workers share an archive (`--archive`), a session lives on one of them at a time. A call that
  reaches another is told so, and these functions send it on to the worker that has the session,
  once.

  ## Failures

  Snakepit makes an exception struct of what went wrong in the worker and wraps it in
  `Snakepit.Error`; what makes a stream fail, it hands over as it came. Both become
  `SnakepitWorker.Failure`:

      case SnakepitWorker.call("dspy.call", %{handle: handle, inputs: inputs}, session_id: "ann") do
        {:ok, answer} -> answer
        {:error, %SnakepitWorker.Failure{code: "NOT_FOUND"}} -> create_it_again()
        {:error, %SnakepitWorker.Failure{retryable: true} = failure} -> later(failure.retry_after_ms)
        {:error, %SnakepitWorker.Failure{} = failure} -> Logger.error(Exception.message(failure))
        {:error, %Snakepit.Error{} = error} -> no_answer(error)
      end

  What did not come from the worker (no worker was free, the deadline passed, the worker ended)
  stays the `Snakepit.Error` that it is.

  Written for Snakepit 0.13.
  """

  alias Snakepit.Bridge.SessionStore
  alias SnakepitWorker.{Failure, HostError}

  @typedoc "Full name of a tool: `dspy.predict`."
  @type tool :: String.t()

  @typedoc "Arguments by name; the names may be atoms."
  @type args :: %{optional(String.t() | atom()) => term()}

  @type error :: Failure.t() | Snakepit.Error.t()

  @doc """
  Calls a tool.

  The options are those of `Snakepit.execute/3`: among them `:session_id`, `:pool_name`, `:timeout`
  in milliseconds, `:affinity`.

  Raises `ArgumentError` when the session id is not a text, or when options and arguments name
  different ones.
  """
  @spec call(tool(), args(), keyword()) :: {:ok, term()} | {:error, error()}
  def call(tool, args \\ %{}, opts \\ []) do
    {args, opts} = in_session(args, opts)
    routed(opts, &(tool |> Snakepit.execute(args, &1) |> with_failure()), fn -> true end)
  end

  @doc """
  Calls a tool as `call/3` does, and returns its result.

  Raises `SnakepitWorker.Failure` when the tool fails, and `SnakepitWorker.HostError` when there is
  no answer from a worker.
  """
  @spec call!(tool(), args(), keyword()) :: term()
  def call!(tool, args \\ %{}, opts \\ []) do
    case call(tool, args, opts) do
      {:ok, result} -> result
      {:error, %Failure{} = failure} -> raise failure
      {:error, error} -> raise HostError, error: error
    end
  end

  @doc """
  Calls a tool that streams, and calls `fun` with each chunk, a map.

  A chunk is the object that the tool yields, or `%{"data" => value}` where it yields something
  else; `"is_final"` is added to each. A tool that does not mark its last item itself ends with one
  more chunk that holds nothing but `"is_final" => true`.

  `fun` may return `:halt`, or `{:halt, reason}` to get that error. The host then stops to listen;
  the worker is not told, and the pool's worker stays busy until the tool ends or the deadline
  passes.

  The options are those of `Snakepit.execute_stream/4`.
  """
  @spec stream(tool(), args(), (map() -> term()), keyword()) :: :ok | {:error, error()}
  def stream(tool, args, fun, opts \\ []) when is_function(fun, 1) do
    {args, opts} = in_session(args, opts)
    chunks = :counters.new(1, [])

    counting = fn chunk ->
      :counters.add(chunks, 1, 1)
      fun.(chunk)
    end

    # What has been delivered must not come once more.
    repeatable = fn -> :counters.get(chunks, 1) == 0 end

    routed(
      opts,
      &(tool |> Snakepit.execute_stream(args, counting, &1) |> with_failure()),
      repeatable
    )
  end

  # A call that reached another worker than the one on which its session lives goes there, once.
  defp routed(opts, send, repeatable) do
    with {:error, %Failure{} = failure} = result <- send.(opts) do
      case repeatable.() && where(failure, opts) do
        {:ok, opts} -> unless_gone(send.(opts), result)
        _here -> result
      end
    end
  end

  defp where(%Failure{code: "ABORTED", details: %{"worker_id" => worker} = details}, opts) do
    session = opts[:session_id]

    if session != nil and details["session_id"] == session do
      :ok = SessionStore.store_worker_session(session, worker)
      {:ok, Keyword.put(opts, :affinity, :strict_queue)}
    end
  end

  # The session has just moved to the worker that was asked.
  defp where(%Failure{retryable: true, retry_after_ms: 0}, opts), do: {:ok, opts}
  defp where(_failure, _opts), do: nil

  # The worker may be one of another node, which this pool does not have.
  defp unless_gone({:error, %Snakepit.Error{details: %{reason: reason}}}, result)
       when reason in [:session_worker_unavailable, :worker_busy],
       do: result

  defp unless_gone(again, _result), do: again

  defp with_failure({:error, error}) do
    case Failure.decode(error) do
      {:ok, failure} -> {:error, failure}
      :error -> {:error, error}
    end
  end

  defp with_failure(result), do: result

  defp in_session(args, opts) do
    {named, args} = Map.pop(args, :session_id)

    case Enum.uniq(for id <- [opts[:session_id], args["session_id"], named], id != nil, do: id) do
      [] ->
        {Map.delete(args, "session_id"), Keyword.delete(opts, :session_id)}

      [id] when is_binary(id) and id != "" ->
        {Map.put(args, "session_id", id), Keyword.put(opts, :session_id, id)}

      [id] ->
        raise ArgumentError, "a session id is a text that is not empty, not #{inspect(id)}"

      ids ->
        raise ArgumentError, "one call is in one session, not in each of #{inspect(ids)}"
    end
  end
end
