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
