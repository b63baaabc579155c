defmodule SnakepitWorker.LaunchTest do
  @moduledoc """
  Starts real workers from this BEAM, with the command lines of Snakepit 0.13.

  Runs where a host for them is given; see `tests/e2e/test_elixir.py`.
  """

  use ExUnit.Case, async: false
  @moduletag :starts_workers

  alias SnakepitWorker.HostAdapter

  @limit 30_000

  setup do
    on_exit(fn -> Application.delete_env(:snakepit, :python_executable) end)
    folder = Path.join(System.tmp_dir!(), "launch_test_#{System.unique_integer([:positive])}")
    File.mkdir_p!(folder)
    on_exit(fn -> File.rm_rf!(folder) end)
    {:ok, folder: folder}
  end

  test "the process profile, by the host adapter", %{folder: folder} do
    configure("LAUNCH_TEST_PYTHON")
    starts(HostAdapter.script_args(), folder)
  end

  test "the process profile, by the launcher and Snakepit's script", %{folder: folder} do
    configure("LAUNCH_TEST_LAUNCHER")
    starts([Path.join(folder, "grpc_server.py")], folder)
  end

  test "the thread profile, by the launcher and Snakepit's script", %{folder: folder} do
    configure("LAUNCH_TEST_LAUNCHER")
    script = Path.join(folder, "grpc_server_threaded.py")
    starts([script, "--max-workers", "4", "--thread-safety-check"], folder)
  end

  defp configure(variable) do
    Application.put_env(:snakepit, :python_executable, System.fetch_env!(variable))
  end

  # Opens the port that Snakepit opens, looks where Snakepit looks, and closes it.
  defp starts(arguments, folder) do
    ready_file = Path.join(folder, "snakepit_ready_default_worker_1_7")

    port =
      Port.open({:spawn_executable, HostAdapter.executable_path()}, [
        :binary,
        :exit_status,
        :use_stdio,
        :stderr_to_stdout,
        :hide,
        cd: folder,
        env: [
          {~c"SNAKEPIT_READY_FILE", to_charlist(ready_file)},
          {~c"SNAKEPIT_PROCESS_GROUP", ~c"1"},
          {~c"SNAKEPIT_LOG_LEVEL", ~c"error"}
        ],
        args:
          arguments ++
            ["--port", "0", "--elixir-address", System.fetch_env!("LAUNCH_TEST_HOST")] ++
            ["--snakepit-run-id", "abc1234", "--snakepit-instance-name", "dev_shop"]
      ])

    {:os_pid, pid} = Port.info(port, :os_pid)
    wait_until(port, fn -> File.exists?(ready_file) end)
    serving = ready_file |> File.read!() |> String.to_integer()
    {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, serving, [:binary])
    :gen_tcp.close(socket)

    assert File.read!("/proc/#{pid}/comm") =~ "python"
    command = String.replace(File.read!("/proc/#{pid}/cmdline"), "\0", " ")
    assert command =~ "-X snakepit=grpc_server.py -m snakepit_worker"
    assert command =~ "--snakepit-run-id abc1234 "

    Port.close(port)
    wait_until(port, fn -> not File.exists?("/proc/#{pid}") end)
  end

  defp wait_until(port, condition, left \\ @limit) do
    receive do
      {^port, {:exit_status, status}} -> flunk("the worker ended with status #{status}")
      {^port, {:data, text}} -> IO.write(text)
    after
      20 -> :ok
    end

    unless condition.() do
      assert left > 0, "waited in vain"
      wait_until(port, condition, left - 20)
    end
  end
end
