defmodule SnakepitWorkerTest do
  use ExUnit.Case, async: true

  alias SnakepitWorker.{Failure, HostError}

  @busy %Snakepit.Error{
    category: :pool,
    message: "Preferred worker is busy",
    details: %{reason: :worker_busy, command: "shop.price"}
  }

  describe "the session id" do
    setup do
      Snakepit.will_answer({:ok, 5})
      :ok
    end

    for {given, args, opts} <- [
          {"an option", %{article: "tea"}, [session_id: "ann"]},
          {"an argument", %{"session_id" => "ann", article: "tea"}, []},
          {"an argument named by an atom", %{session_id: "ann", article: "tea"}, []},
          {"each of them", %{"session_id" => "ann", session_id: "ann", article: "tea"},
           [session_id: "ann"]}
        ] do
      test "goes into the arguments and to the pool, given as #{given}" do
        assert {:ok, 5} =
                 SnakepitWorker.call(
                   "shop.price",
                   unquote(Macro.escape(args)),
                   [timeout: 2000] ++ unquote(opts)
                 )

        assert_received {:execute, "shop.price", args, opts}
        assert args == %{"session_id" => "ann", article: "tea"}
        assert Enum.sort(opts) == [session_id: "ann", timeout: 2000]
      end
    end

    test "goes the same ways with a stream" do
      Snakepit.will_answer(:ok)
      assert :ok = SnakepitWorker.stream("shop.count", %{to: 2}, & &1, session_id: "ann")
      assert_received {:execute_stream, "shop.count", args, session_id: "ann"}
      assert args == %{"session_id" => "ann", to: 2}
    end

    test "is left out where there is none" do
      SnakepitWorker.call("worker.info")
      assert_received {:execute, "worker.info", %{} = args, []}
      assert args == %{}

      none = %{"session_id" => nil}
      SnakepitWorker.call("worker.info", none, session_id: nil, pool_name: :wide)

      assert_received {:execute, "worker.info", %{} = args, pool_name: :wide}
      assert args == %{}
    end

    test "is one, and a text" do
      for {args, opts} <- [
            {%{"session_id" => "ann"}, [session_id: "bob"]},
            {%{"session_id" => "ann", session_id: "bob"}, []},
            {%{}, [session_id: ""]},
            {%{}, [session_id: :ann]},
            {%{"session_id" => 7}, []}
          ] do
        assert_raise ArgumentError, ~r/session/, fn ->
          SnakepitWorker.call("shop.price", args, opts)
        end

        assert_raise ArgumentError, ~r/session/, fn ->
          SnakepitWorker.stream("shop.count", args, & &1, opts)
        end
      end

      refute_received {:execute, _, _, _}
      refute_received {:execute_stream, _, _, _}
    end
  end

  describe "a call" do
    test "returns what the tool returns" do
      for result <- [nil, 7, "text", %{"a" => [1.5]}, {:binary, <<255>>}] do
        Snakepit.will_answer({:ok, result})
        assert SnakepitWorker.call("shop.price") == {:ok, result}
        assert SnakepitWorker.call!("shop.price") == result
      end
    end

    test "returns the worker's failure, and raises it when told to" do
      Snakepit.will_answer({:error, FromTheWorker.unary(FromTheWorker.text("wrong_arguments"))})
      assert {:error, %Failure{} = failure} = SnakepitWorker.call("shop.price")
      assert failure.code == "INVALID_ARGUMENT"
      assert ^failure = catch_error(SnakepitWorker.call!("shop.price"))
    end

    test "returns every other error as it is, and raises it in a struct that can be raised" do
      Snakepit.will_answer({:error, @busy})
      assert {:error, @busy} = SnakepitWorker.call("shop.price")

      assert_raise HostError, "Preferred worker is busy (pool): :worker_busy", fn ->
        SnakepitWorker.call!("shop.price")
      end

      assert %HostError{error: @busy} = catch_error(SnakepitWorker.call!("shop.price"))
    end

    test "can always be raised with a text" do
      plain = %Snakepit.Error{category: :timeout, message: "Too late", details: %{}}
      assert Exception.message(%HostError{error: plain}) == "Too late (timeout)"
      assert Exception.message(%HostError{error: :odd}) == ":odd"
    end
  end

  describe "a session on another worker" do
    @elsewhere {:error, FromTheWorker.unary(FromTheWorker.text("lives_elsewhere"))}
    @gone %{@busy | details: %{reason: :session_worker_unavailable}}

    test "is found there" do
      Snakepit.will_answer_in_turn([{@elsewhere, []}, {{:ok, 5}, []}])
      assert {:ok, 5} = SnakepitWorker.call("shop.price", %{}, session_id: "ann")
      assert_received {:store_worker_session, "ann", "pool_worker_1"}
      assert_received {:execute, "shop.price", args, session_id: "ann"}
      assert_received {:execute, "shop.price", ^args, opts}
      assert Enum.sort(opts) == [affinity: :strict_queue, session_id: "ann"]
    end

    test "is looked for once" do
      Snakepit.will_answer(@elsewhere)

      assert {:error, %Failure{code: "ABORTED"}} =
               SnakepitWorker.call("t", %{}, session_id: "ann")

      assert_received {:execute, _, _, _}
      assert_received {:execute, _, _, _}
      refute_received {:execute, _, _, _}
    end

    test "is told of where this pool does not have that worker" do
      Snakepit.will_answer_in_turn([{@elsewhere, []}, {{:error, @gone}, []}])
      assert {:error, %Failure{} = failure} = SnakepitWorker.call("t", %{}, session_id: "ann")
      assert failure.details["worker_id"] == "pool_worker_1"
    end

    test "that is not the caller's concerns nobody" do
      Snakepit.will_answer(@elsewhere)
      assert {:error, %Failure{}} = SnakepitWorker.call("t", %{}, session_id: "bob")
      assert {:error, %Failure{}} = SnakepitWorker.call("t", %{})
      refute_received {:store_worker_session, _, _}
    end

    test "which has just moved is asked again" do
      moved = {:error, FromTheWorker.unary(FromTheWorker.text("just_moved"))}
      Snakepit.will_answer_in_turn([{moved, []}, {{:ok, 5}, []}])
      assert {:ok, 5} = SnakepitWorker.call("shop.price", %{}, session_id: "ann")
      refute_received {:store_worker_session, _, _}
    end

    test "is found there by a stream that has not begun, and by no other" do
      failed = {:error, FromTheWorker.stream(FromTheWorker.text("lives_elsewhere"))}
      Snakepit.will_answer_in_turn([{failed, []}, {:ok, []}])
      assert :ok = SnakepitWorker.stream("shop.count", %{}, & &1, session_id: "ann")
      Snakepit.will_answer_in_turn([{failed, [%{"data" => 0}]}, {:ok, []}])

      assert {:error, %Failure{code: "ABORTED"}} =
               SnakepitWorker.stream("shop.count", %{}, & &1, session_id: "ann")
    end
  end

  describe "a stream" do
    @chunks [%{"data" => 0, "is_final" => false}, %{"is_final" => true}]

    test "calls the function with each chunk" do
      Snakepit.will_answer(:ok, @chunks)
      assert :ok = SnakepitWorker.stream("shop.count", %{to: 1}, &send(self(), {:chunk, &1}))
      for chunk <- @chunks, do: assert_received({:chunk, ^chunk})
    end

    test "can be left" do
      Snakepit.will_answer({:error, @busy}, @chunks)
      assert :ok = SnakepitWorker.stream("shop.count", %{to: 1}, fn _chunk -> :halt end)
    end

    test "ends with the worker's failure" do
      text = FromTheWorker.text("stream_wrong_arguments")
      Snakepit.will_answer({:error, FromTheWorker.stream(text)}, @chunks)
      assert {:error, %Failure{} = failure} = SnakepitWorker.stream("shop.count", %{}, & &1)
      assert failure.code == "INVALID_ARGUMENT"
    end

    test "ends with every other error as it is" do
      Snakepit.will_answer({:error, @busy})
      assert {:error, @busy} = SnakepitWorker.stream("shop.count", %{}, & &1)
    end
  end
end
