//! Stories of the maintenance thread, on both engines.

use super::*;
use crate::base::limits::{MAINTENANCE_AHEAD, MAINTENANCE_CHUNK_BYTES};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ENGINES: [Settings; 2] = [Settings { plain: false }, Settings { plain: true }];

/// Runs a story on both engines; the thread must end afterwards.
fn on_both_engines(story: impl AsyncFn(&Maintenance, &Path)) {
    for settings in ENGINES {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (maintenance, thread) = start(settings).expect("started");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        runtime.block_on(story(&maintenance, dir.path()));
        assert!(thread.stop(), "{settings:?}");
    }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

async fn read_back(maintenance: &Maintenance, path: PathBuf, range: Range<u64>) -> std::io::Result<Vec<u8>> {
    read_in(Lane::Scrub, maintenance, path, range).await
}

async fn read_in(lane: Lane, maintenance: &Maintenance, path: PathBuf, range: Range<u64>) -> std::io::Result<Vec<u8>> {
    let job = async move |context: Context| {
        let mut reader = context.read(&path, range).await?;
        let mut all = Vec::new();
        while let Some(chunk) = reader.next().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    };
    maintenance.run(lane, job).await.expect("ran")
}

#[test]
fn what_is_written_is_read_back_from_any_byte_to_any_byte() {
    on_both_engines(async |maintenance, dir| {
        let chunk = MAINTENANCE_CHUNK_BYTES;
        for bytes in [0, 1, 4096, chunk, chunk + 1, (MAINTENANCE_AHEAD + 3) * chunk + 777] {
            let (path, expected) = (dir.join(bytes.to_string()), content(bytes));
            let (to, source) = (path.clone(), expected.clone());
            let write = async move |context: Context| -> std::io::Result<u64> {
                let mut writer = context.write(&to).await?;
                for piece in source.chunks(100_003) {
                    writer.write(piece).await?;
                }
                assert_eq!(writer.position(), source.len() as u64);
                writer.finish().await
            };
            let written = maintenance.run(Lane::Clean, write).await.expect("ran").expect("written");
            assert_eq!(written, bytes as u64);
            assert!(std::fs::read(&path).expect("readable") == expected, "{bytes} bytes");
            let size = bytes as u64;
            for range in [0..size, size / 3..size, size / 3..size / 2, size..size, size.saturating_sub(1)..size] {
                let read = read_back(maintenance, path.clone(), range.clone()).await.expect("read");
                assert!(read == expected[range.start as usize..range.end as usize], "{range:?} of {bytes}");
            }
            let beyond = read_back(maintenance, path, size / 2..size + 5000).await.expect_err("the file is too short");
            assert_eq!(beyond.kind(), std::io::ErrorKind::UnexpectedEof);
        }
        let missing = read_back(maintenance, dir.join("none"), 0..1).await.expect_err("no such file");
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT), "the number tells what it means for the disk");
    });
}

/// tmpfs has no direct I/O.
#[test]
fn a_file_system_without_direct_io_is_read_all_the_same() {
    on_both_engines(async |maintenance, _| {
        let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
        let (path, expected) = (dir.path().join("f"), content(3 * MAINTENANCE_CHUNK_BYTES + 5));
        let (to, source) = (path.clone(), expected.clone());
        let write = async move |context: Context| -> std::io::Result<u64> {
            let mut writer = context.write(&to).await?;
            writer.write(&source).await?;
            writer.finish().await
        };
        maintenance.run(Lane::Clean, write).await.expect("ran").expect("written");
        let size = expected.len() as u64;
        assert!(read_back(maintenance, path, 7..size).await.expect("read") == expected[7..]);
    });
}

#[test]
fn jobs_of_one_lane_take_turns_and_do_not_hold_up_another() {
    on_both_engines(async |maintenance, _| {
        let (finish, finished) = oneshot::channel::<()>();
        let long = maintenance.run(Lane::Clean, async move |_| finished.await.is_ok());
        let after = maintenance.run(Lane::Clean, async |_| Instant::now());
        let other = async {
            maintenance.run(Lane::Scrub, async |_| ()).await.expect("not held up");
            let before = Instant::now();
            finish.send(()).expect("awaited");
            before
        };
        let (long, after, other) = tokio::join!(long, after, other);
        assert!(long.expect("ran"));
        assert!(after.expect("ran") > other, "it began before the first one had ended");
    });
}

#[test]
fn who_no_longer_awaits_has_cancelled() {
    on_both_engines(async |maintenance, dir| {
        let path = dir.join("f");
        std::fs::write(&path, content(20 * MAINTENANCE_CHUNK_BYTES)).expect("written");
        let (begun, has_begun) = oneshot::channel();
        let (held, released) = oneshot::channel::<()>();
        let job = async move |context: Context| {
            let mut reader = context.read(&path, 0..20 * MAINTENANCE_CHUNK_BYTES as u64).await.expect("open");
            reader.next().await.expect("read");
            let _ = begun.send(());
            // Reads ahead are under way while it is dropped here.
            std::future::pending::<()>().await;
            drop(held);
        };
        tokio::select! {
            _ = maintenance.run(Lane::Clean, job) => panic!("it never ends by itself"),
            begun = has_begun => begun.expect("it began"),
        }
        released.await.expect_err("dropped with the job");
        maintenance.run(Lane::Clean, async |_| ()).await.expect("the lane is free again");
    });
}

#[test]
fn a_stop_cancels_jobs_but_not_what_must_be_done_whole() {
    for settings in ENGINES {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("whole");
        let (maintenance, thread) = start(settings).expect("started");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let (begun, has_begun) = std::sync::mpsc::channel();
        let target = path.clone();
        let job = async move |context: Context| {
            let slow = move || {
                begun.send(()).expect("awaited");
                std::thread::sleep(Duration::from_millis(100));
                std::fs::write(&target, "whole").expect("written");
            };
            context.blocking(slow).await.expect("ran");
            context.sleep(Duration::from_secs(1000)).await;
        };
        let stopper = std::thread::spawn(move || {
            has_begun.recv().expect("begun");
            thread.stop()
        });
        assert_eq!(runtime.block_on(maintenance.run(Lane::Clean, job)), Err(JobError::Stopped));
        assert!(stopper.join().expect("no panic"), "{settings:?}");
        assert_eq!(std::fs::read_to_string(&path).expect("done whole"), "whole");
        let late = runtime.block_on(maintenance.run(Lane::Clean, async |_| ()));
        assert_eq!(late, Err(JobError::Stopped));
    }
}

#[test]
fn a_panic_ends_its_job_alone() {
    on_both_engines(async |maintenance, _| {
        let panicked = maintenance.run(Lane::Clean, async |_| panic!("on purpose")).await;
        assert_eq!(panicked, Err::<(), _>(JobError::Panicked));
        maintenance.run(Lane::Clean, async |_| ()).await.expect("the thread lives");
    });
}

#[test]
fn a_lane_keeps_to_its_rate() {
    on_both_engines(async |maintenance, dir| {
        let path = dir.join("f");
        let bytes = 4 * MAINTENANCE_CHUNK_BYTES;
        std::fs::write(&path, content(bytes)).expect("written");
        maintenance.set_rate(Lane::Scrub, 5 * bytes as u64);
        let begun = Instant::now();
        read_back(maintenance, path.clone(), 0..bytes as u64).await.expect("read");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(80), "{took:?}: a fifth of a second less the burst is due");
    });
}

/// No limit is set: it goes slowly all the same while clients may be busy, and as fast as it can when they are silent.
#[test]
fn compaction_makes_way_for_clients() {
    on_both_engines(async |maintenance, dir| {
        maintenance.work_beside(Arc::new(ShardMetrics::new()));
        let path = dir.join("f");
        let bytes = 24 * MAINTENANCE_CHUNK_BYTES;
        std::fs::write(&path, content(bytes)).expect("written");
        let begun = Instant::now();
        read_in(Lane::Clean, maintenance, path, 0..bytes as u64).await.expect("read");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(200), "{took:?}: 12 MiB at 32 MiB/s less the burst");
    });
}

/// What blocks reads streams as it would read files.
#[test]
fn a_thread_beside_reads_streams() {
    on_both_engines(async |maintenance, dir| {
        let (path, expected) = (dir.join("f"), content(7 * MAINTENANCE_CHUNK_BYTES + 99));
        std::fs::write(&path, &expected).expect("written");
        let size = expected.len() as u64;
        let job = async move |context: Context| {
            let work = move |streams: &Streams| {
                let mut all = Vec::new();
                streams.read(&path, 5..size)?.read_to_end(&mut all)?;
                // The rest of a stream that is dropped keeps nobody.
                streams.read(&path, 0..size)?.read_exact(&mut [0; 10])?;
                let missing = streams.read(&path.with_extension("none"), 0..1)?.read(&mut [0]);
                assert_eq!(missing.expect_err("no such file").kind(), std::io::ErrorKind::NotFound);
                std::io::Result::Ok(all)
            };
            context.blocking_with_streams(work).await?
        };
        let read = maintenance.run(Lane::Recovery, job).await.expect("ran").expect("read");
        assert!(read == expected[5..]);
    });
}

/// It runs beside those who serve clients.
#[test]
fn the_thread_is_of_low_priority() {
    on_both_engines(async |maintenance, _| {
        let nice = || rustix::process::getpriority_process(Some(rustix::thread::gettid())).expect("readable");
        let job = async move |context: Context| (nice(), context.blocking(nice).await.expect("ran"));
        assert_eq!(maintenance.run(Lane::Chore, job).await, Ok((10, 10)));
    });
}
