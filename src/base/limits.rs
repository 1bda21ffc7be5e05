//! Every bound in one place: what is not bounded here is a defect.
//!
//! Units are last in the name. Configurable ones are defaults of `base::config`; the rest are fixed.

/// Requests of one connection that wait for their answers; reading stops beyond that.
pub const CONNECTION_IN_FLIGHT_MAX: usize = 128;

/// Bytes of requests of one connection that are held (received, not yet answered); reading stops beyond that,
/// except that one request of `socket.request.max.bytes` is always taken.
pub const CONNECTION_HELD_BYTES_MAX: usize = 32 << 20;

/// Array elements that one request may declare in all its arrays together.
/// Above what real clients send by orders of magnitude; below what would hurt (about 100 bytes each in memory).
pub const REQUEST_ELEMENTS_MAX: usize = 400_000;

/// Array elements that one answer may declare to our own client: what 150,000 partitions with three replicas need.
pub const RESPONSE_ELEMENTS_MAX: usize = 2_000_000;

/// Buffers of one write to a segment (IOV_MAX of Linux is 1,024).
pub const APPEND_IOVECS_MAX: usize = 1000;

/// Bytes that wait for a journal; writers to segments wait then.
pub const JOURNAL_PENDING_BYTES_MAX: usize = 16 << 20;

/// Bytes of one write to a journal; less in a ring of which this is more than 1/8.
pub const JOURNAL_GROUP_BYTES_MAX: u64 = 1 << 20;

/// A write to a journal that takes longer means a disk that does not answer.
pub const JOURNAL_WRITE_SECONDS_MAX: u32 = 10;

/// Partitions that a checkpoint of a journal syncs side by side.
pub const JOURNAL_SYNCS_MAX: usize = 32;

/// Bytes of a partition that nobody waits for and no flush has covered; then one is begun, unless `log.flush.policy=os` leaves that to the kernel: this is what a start after
/// a crash has to look through, and what a full file budget has to sync before it can close files.
pub const UNFLUSHED_BYTES_MAX: u64 = 64 << 20;

/// How long records may wait for a sync that nobody asked for (milliseconds), unless `log.flush.policy=os`: what a power cut could take, and a
/// start after a crash has to look through, is bounded when writing stops as well. What the ring holds need not be synced.
pub const UNSYNCED_MS_MAX: i64 = 30_000;

/// Free bytes of a log directory below which nothing is appended: what checkpoints, indexes and the store need at once.
pub const FREE_BYTES_MIN: u64 = 4 << 20;

/// Bytes of the reserve of a log directory, beside what its journals' redo may need: checkpoints, indexes, snapshots, the store.
pub const RESERVE_BYTES_MIN: u64 = 16 << 20;

/// The reserve is at most this part of a disk (one hundredth), or the least that is of use.
pub const RESERVE_SHARE_MAX: u64 = 100;

/// Bytes of one write to a segment.
pub const APPEND_BYTES_MAX: usize = 8 << 20;

/// Uncompressed bytes that one record batch may grow to when its records are checked or recompressed.
pub const DECOMPRESSED_BATCH_BYTES_MAX: usize = 256 << 20;

/// Bits of the window that a zstd frame may declare: 128 MiB, zstd's own limit and what level 22 writes. Real producers
/// stay far below (2 MiB at the clients' default level 3, 8 MiB at level 19, in Go up to 32 MiB), but Kafka offers levels
/// up to 22, so a smaller bound would refuse sound batches. It costs memory only as far as it is filled, and only while
/// its batch is looked at, one at a time in each shard.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Bytes of one zstd stream beyond which the decoder that a thread keeps for the next one is given up with its window.
pub const ZSTD_KEPT_BYTES_MAX: usize = 8 << 20;

/// Bytes of server.properties.
pub const PROPERTIES_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a compressed batch that are held uncompressed at a time while its records are checked.
pub const DECOMPRESS_CHUNK_BYTES: usize = 64 << 10;

/// The highest offset at which a batch may begin: a segment's reach and a batch's, 2^31 each, stay below overflow.
pub const LOG_OFFSET_MAX: i64 = i64::MAX - (4 << 30);

/// Record errors that one refused batch is answered with; the rest are only counted.
pub const RECORD_ERRORS_MAX: usize = 1000;

/// A topic name's length (Kafka: 249, so that `-partition` and a suffix still fit a file name).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// How long a request without a timeout of its own waits for the control plane (as long as Kafka's clients wait).
pub const CONTROL_ANSWER_MS_MAX: u64 = 30_000;

const _: () = assert!(APPEND_IOVECS_MAX <= 1024);

/// Bytes of the indexes of sealed segments that a shard keeps in memory; one segment's may exceed it alone.
pub const SEALED_INDEX_BYTES_MAX: usize = 64 << 20;

/// Idempotent producers remembered by one partition; beyond it those that were silent longest are forgotten.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 100_000;

/// Batches at the end of a log whose positions are kept in memory, so that tail readers need no look-up on disk.
pub const RECENT_BATCHES_MAX: usize = 256;

/// Partitions that all fetch sessions of a shard remember together; beyond it requests are served without a session.
pub const FETCH_SESSION_PARTITIONS_MAX: usize = 1_000_000;

/// Cold data that one fetch takes through user space: more waits for the next fetch, except for a larger first batch.
pub const COLD_READ_BYTES_MAX: usize = 1 << 20;

/// Bytes that are read ahead of a reader of cold data at a time: what must be on disk before it is acknowledged waits behind them.
/// 1 MiB fills the queue of a virtual disk, of 256 descriptors, alone; with a quarter a disk gives nearly as much.
pub const COLD_PIECE_BYTES: u64 = 256 << 10;

/// Bytes of a segment that were written and are handed to the disk without waiting for a sync: what a sync then still finds
/// is little. Less would cost more requests and break up files; more would keep the ring waiting for longer.
pub const WRITE_OUT_BYTES: u64 = 1 << 20;

/// Bytes that readers of cold data brought into the page cache and that are kept there for those who follow, of each shard.
pub const COLD_KEPT_BYTES_MAX: u64 = 32 << 20;

/// The ranges that these lie in.
pub const COLD_RANGES_MAX: usize = 256;

/// Segment files that one fetch answer keeps open until it is sent; slices of others are copied if they are small.
pub const FETCH_FILES_MAX: usize = 64;

/// The largest slice that is copied instead of keeping a file open for it.
pub const FETCH_COPIED_SLICE_BYTES_MAX: usize = 64 << 10;

/// Bytes that one fetch answer copies from the page cache: more waits for the next fetch.
pub const FETCH_COPY_BYTES_MAX: usize = 1 << 20;

/// Bytes of requests that a shard holds in all its connections: received and not answered, or still arriving.
/// One connection at a time may exceed it to complete its frame.
pub const SHARD_RECEIVE_BYTES_MAX: usize = 256 << 20;

/// Pipes of 1 MiB that a shard splices through; a user without privileges may have 64 in all.
pub const SHARD_PIPES_MAX: usize = 4;

/// Bytes of one request to the coordination store: below ZooKeeper's `jute.maxbuffer` (1,048,575), framing included.
pub const STORE_REQUEST_BYTES_MAX: usize = 1_000_000;

/// A path's length in the coordination store: a topic name, its partition and Kafka's fixed parts fit three times.
pub const STORE_PATH_BYTES_MAX: usize = 1024;

/// Bytes that the embedded store holds in all (nodes with their data); its file is at most a few times that.
pub const STORE_TREE_BYTES_MAX: usize = 128 << 20;

/// Bytes of the embedded store's file: beyond that, changes are refused until it can be rewritten.
pub const STORE_FILE_BYTES_MAX: u64 = 1 << 30;

/// Events that wait in one watch; a reader that falls further behind is told to read again.
pub const STORE_WATCH_EVENTS_MAX: usize = 4096;

/// Partitions that one administrative request may create: its assignment must fit one node of the store.
pub const CREATE_PARTITIONS_MAX: usize = 20_000;

/// Times that one DescribeConfigs describes resources again that it has named before.
pub const CONFIGS_DESCRIBED_AGAIN_MAX: usize = 100;

/// Partitions of a cluster: what the embedded store holds of them is within its bound.
pub const CLUSTER_PARTITIONS_MAX: usize = 150_000;

/// Commands to the control plane that wait for their turn; senders wait beyond that.
pub const CONTROL_COMMANDS_MAX: usize = 256;

/// Bytes of those commands together: they are done even if who asked has gone, so that no connection's bound holds them.
/// A larger one is taken when it is alone.
pub const CONTROL_COMMAND_BYTES_MAX: usize = 64 << 20;

/// Milliseconds that an answer waits for all shards to apply an image.
pub const SHARD_APPLY_MS_MAX: u64 = 30_000;

/// Parts of checkpoints that wait for the one writer of the files; shards wait to send beyond that.
pub const CHECKPOINTS_WAITING_MAX: usize = 16;

/// Damaged ranges that a partition remembers; beyond that, neighbours are taken as one. What they cost in memory is 48 KiB;
/// a disk that damages more of one log than this is to be replaced, not read around.
pub const CORRUPT_RANGES_MAX: usize = 1000;

/// Bytes of the file that keeps them: more cannot be in it.
pub const CORRUPT_FILE_BYTES_MAX: u64 = 1 << 20;

/// Segments of a partition that are looked through for damage because readers met some; more wait to be met again.
pub const SUSPECTS_MAX: usize = 16;

/// Jobs of one kind that wait for the maintenance thread; who asks for more waits to ask.
pub const MAINTENANCE_JOBS_WAITING_MAX: usize = 64;

/// Bytes that the maintenance thread reads or writes at once: large enough that a disk's rate, not its latency, counts.
pub const MAINTENANCE_CHUNK_BYTES: usize = 512 << 10;

/// Chunks of one stream that are under way: with the one in use, 2.5 MiB for each stream.
pub const MAINTENANCE_AHEAD: usize = 4;

/// The same for work that nobody waits for: what is to be acknowledged waits in the disk's queue behind it. Smaller chunks, and no more of
/// them than keep the disk at work while one is worked on.
pub const BACKGROUND_CHUNK_BYTES: usize = 256 << 10;
pub const BACKGROUND_AHEAD: usize = 2;

/// Logs that are opened or recovered side by side: most of the time each waits for the disk.
pub const RECOVERIES_AT_ONCE_MAX: usize = 16;

/// How long a stop waits for what the maintenance thread has under way.
pub const MAINTENANCE_STOP_SECONDS_MAX: u64 = 10;

/// Bytes of a client id that are kept: with a member id's uuid behind it, it is still a text of a record (32,767 bytes).
pub const CLIENT_ID_BYTES_MAX: usize = 32_700;

/// Member ids of a group that were given out and are not joined with yet. Kafka has no such bound.
pub const PENDING_MEMBERS_MAX: usize = 10_000;

/// Bytes of memory for groups of one shard and what their members tell about themselves and are to have; beyond it nobody new is taken in. Members
/// that come by JoinGroup have nothing in the log until their group is whole, so that nothing else would bound them. Who is a
/// member already may come to tell a quarter more. That is 50,000 members that have subscribed to some topics. Assignments are counted, but not
/// refused, and what is committed is neither: it is data, which lasts and is loaded again.
pub const GROUPS_BYTES_MAX: usize = 256 << 20;

/// What a group without members, a member that tells nothing, and a member id that was given out take of these, about.
pub const GROUP_BYTES: usize = 1024;
pub const MEMBER_BYTES: usize = 1024;
pub const PENDING_MEMBER_BYTES: usize = 256;

/// Bytes of a compiled pattern of a group's subscription; regex's own bound is ten times as much. A larger one is refused.
pub const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Seconds of processor time for holding the patterns that one heartbeat needs against all topics. An ordinary one takes half a millisecond for
/// 10,000 topics; one that counts to a thousand can take a minute, and others wait for it meanwhile.
pub const PATTERNS_SECONDS_MAX: u64 = 5;

/// Heartbeats that wait until patterns have been held against the topics, on one shard: who sends more is asked to come again. Each is kept in
/// memory meanwhile, whether its connection stays or not.
pub const PATTERNS_WAITING_MAX: usize = 1000;

/// Patterns of a group's subscriptions are held against new topics no more often than this: Kafka's ten seconds.
pub const PATTERN_REFRESH_MS_MIN: i64 = 10_000;

/// Groups and offsets that a shard looks at in the background (for expired ones, or those of a deleted topic) before requests have their
/// turn: about a millisecond's work.
pub const GROUPS_LOOKED_AT_MAX: usize = 1024;

/// Bytes of an answer that describes groups or tells their offsets, from which on further groups are refused; librdkafka takes no answer above
/// 100 MB. One group is always told whole: a classic one was stored as one batch, offsets are as many as there are partitions.
pub const GROUPS_ANSWER_BYTES_MAX: usize = 64 << 20;

/// Members of a group that are fenced in one step: each step walks through all of them, and is one batch.
pub const FENCED_TOGETHER_MAX: usize = 1000;

/// Appends about what groups forget that are under way at a time.
pub const FORGETTING_APPENDS_MAX: usize = 64;

/// Logs that one job opens after a clean stop: each takes well below a millisecond.
pub const OPENED_TOGETHER_MAX: usize = 64;

/// How long a start waits for logs before it serves those that are open: after a clean stop nobody should see one that is
/// not, and after a crash those that need no recovery should not wait for the others.
pub const START_WAIT_CLEAN_MS_MAX: u64 = 1000;
pub const START_WAIT_UNCLEAN_MS_MAX: u64 = 300;

/// Bytes of a shard's logs that a recovery would read; beyond that the largest parts are settled. With a disk that reads 1 GB/s
/// a shard's part of a recovery is below half a second, and what is written to settle logs stays a few percent of the records.
pub const UNSETTLED_BYTES_MAX: u64 = 256 << 20;

/// Seconds between two rounds of settling: the syncs that they ask for must not become the rule.
pub const SETTLE_PAUSE_SECONDS_MIN: u64 = 5;

/// A batch in a segment that says it is larger is read only if another one begins where it ends: its length is not under the CRC, and
/// a bit of it may make it half a gigabyte. No producer's default makes one as large.
pub const BATCH_BYTES_BELIEVED: u32 = 1 << 20;

/// Bytes of a file with one of the machine's settings, or of a process's status: the kernel's are a page at most, or little more.
pub const TUNING_VALUE_BYTES_MAX: usize = 64 << 10;

/// Bytes of a table of the machine's: mounts of a host with thousands of containers.
pub const TUNING_TABLE_BYTES_MAX: usize = 16 << 20;

/// Rows of such a table that are kept.
pub const TUNING_TABLE_ROWS_MAX: usize = 1024;

/// Entries of a directory that are looked at: more processes than a kernel has by default (4,194,304) would take too long to look at.
pub const TUNING_LIST_MAX: usize = 1 << 17;

/// Disks below a data directory, and network cards.
pub const TUNING_DEVICES_MAX: usize = 256;

/// Layers of block devices, such as LVM on dm-crypt on RAID.
pub const TUNING_DEVICE_DEPTH_MAX: usize = 8;

/// CPUs have numbers below this: what Linux can be built for on x86 and ARM.
pub const TUNING_CPUS_MAX: usize = 8192;

/// Values that one state of `corelog tune` names: a governor for each CPU, and interrupts and queues of as many cards.
pub const TUNING_CHANGES_MAX: usize = 1 << 16;

/// Bytes of that state: some 200 for each value.
pub const TUNING_STATE_BYTES_MAX: u64 = 16 << 20;
