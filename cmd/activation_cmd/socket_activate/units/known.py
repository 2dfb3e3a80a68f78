"""The names of all settings that systemd knows, version 252 and those after it. Most of them nothing here does."""

from __future__ import annotations

from typing import Final

_CONDITIONS: Final = """
    ACPower Architecture CPUFeature CPUPressure CPUs Capability ControlGroupController Credential
    DirectoryNotEmpty Environment FileIsExecutable FileNotEmpty Firmware FirstBoot Group Host IOPressure
    KernelCommandLine KernelModuleLoaded KernelVersion Memory MemoryPressure NeedsUpdate OSRelease PathExists
    PathExistsGlob PathIsDirectory PathIsEncrypted PathIsMountPoint PathIsReadWrite PathIsSymbolicLink Security
    User Version Virtualization
"""
_UNIT: Final = """
    After AllowIsolate Before BindTo BindsTo CollectMode Conflicts DefaultDependencies Description Documentation
    FailureAction FailureActionExitStatus IgnoreOnIsolate IgnoreOnSnapshot JobRunningTimeoutSec JobTimeoutAction
    JobTimeoutRebootArgument JobTimeoutSec JoinsNamespaceOf OnFailure OnFailureIsolate OnFailureJobMode OnSuccess
    OnSuccessJobMode PartOf PropagateReloadFrom PropagateReloadTo PropagatesReloadTo PropagatesStopTo
    RebootArgument RefuseManualStart RefuseManualStop ReloadPropagatedFrom Requires RequiresMountsFor
    RequiresOverridable Requisite RequisiteOverridable SourcePath StartLimitAction StartLimitBurst
    StartLimitInterval StartLimitIntervalSec StopPropagatedFrom StopWhenUnneeded SuccessAction
    SuccessActionExitStatus SurviveFinalKillSignal Upholds Wants WantsMountsFor
"""
_SERVICE: Final = """
    BusName BusPolicy ExecCondition ExecReload ExecStart ExecStartPost ExecStartPre ExecStop ExecStopPost ExitType
    FailureAction FileDescriptorStoreMax FileDescriptorStorePreserve GuessMainPID NonBlocking NotifyAccess
    OOMPolicy OpenFile PIDFile PermissionsStartOnly RebootArgument RefreshOnReload ReloadSignal RemainAfterExit
    Restart RestartForceExitStatus RestartMaxDelaySec RestartMode RestartPreventExitStatus RestartSec RestartSteps
    RootDirectoryStartOnly RuntimeMaxSec RuntimeRandomizedExtraSec Sockets StartLimitAction StartLimitBurst
    StartLimitInterval SuccessExitStatus SysVStartPriority TimeoutAbortSec TimeoutSec TimeoutStartFailureMode
    TimeoutStartSec TimeoutStopFailureMode TimeoutStopSec Type USBFunctionDescriptors USBFunctionStrings
    WatchdogSec
"""
_SOCKET: Final = """
    Accept AcceptFileDescriptors Backlog BindIPv6Only BindToDevice Broadcast DeferAcceptSec DeferTrigger
    DeferTriggerMaxSec DirectoryMode ExecStartPost ExecStartPre ExecStopPost ExecStopPre FileDescriptorName
    FlushPending FreeBind IPTOS IPTTL KeepAlive KeepAliveIntervalSec KeepAliveProbes KeepAliveTimeSec
    ListenDatagram ListenFIFO ListenMessageQueue ListenNetlink ListenSequentialPacket ListenSpecial ListenStream
    ListenUSBFunction Mark MaxConnections MaxConnectionsPerSource MessageQueueMaxMessages MessageQueueMessageSize
    NoDelay PassCredentials PassFileDescriptorsToExec PassPIDFD PassPacketInfo PassSecurity PipeSize
    PollLimitBurst PollLimitIntervalSec Priority ReceiveBuffer RemoveOnStop ReusePort SELinuxContextFromNet
    SendBuffer Service SmackLabel SmackLabelIPIn SmackLabelIPOut SocketGroup SocketMode SocketProtocol SocketUser
    Symlinks TCPCongestion TimeoutSec Timestamping Transparent TriggerLimitBurst TriggerLimitIntervalSec Writable
"""
# Of systemd.exec(5), systemd.kill(5) and systemd.resource-control(5).
_PROCESSES: Final = """
    AllowedCPUs AllowedMemoryNodes AmbientCapabilities AppArmorProfile BPFDelegateAttachments BPFDelegateCommands
    BPFDelegateMaps BPFDelegatePrograms BPFProgram BindLogSockets BindPaths BindReadOnlyPaths BlockIOAccounting
    BlockIODeviceWeight BlockIOReadBandwidth BlockIOWeight BlockIOWriteBandwidth CPUAccounting CPUAffinity
    CPUQuota CPUQuotaPeriodSec CPUSchedulingPolicy CPUSchedulingPriority CPUSchedulingResetOnFork CPUShares
    CPUWeight CacheDirectory CacheDirectoryAccounting CacheDirectoryMode CacheDirectoryQuota Capabilities
    CapabilityBoundingSet ConfigurationDirectory ConfigurationDirectoryMode CoredumpFilter CoredumpReceive
    DefaultMemoryLow DefaultMemoryMin DefaultStartupMemoryLow Delegate DelegateNamespaces DelegateSubgroup
    DeviceAllow DevicePolicy DisableControllers DynamicUser Environment EnvironmentFile ExecPaths ExecSearchPath
    ExtensionDirectories ExtensionImagePolicy ExtensionImages FinalKillSignal Group IOAccounting
    IODeviceLatencyTargetSec IODeviceWeight IOReadBandwidthMax IOReadIOPSMax IOSchedulingClass
    IOSchedulingPriority IOWeight IOWriteBandwidthMax IOWriteIOPSMax IPAccounting IPAddressAllow IPAddressDeny
    IPCNamespacePath IPEgressFilterPath IPIngressFilterPath IgnoreSIGPIPE ImportCredential InaccessibleDirectories
    InaccessiblePaths KeyringMode KillMode KillSignal LimitAS LimitCORE LimitCPU LimitDATA LimitFSIZE LimitLOCKS
    LimitMEMLOCK LimitMSGQUEUE LimitNICE LimitNOFILE LimitNPROC LimitRSS LimitRTPRIO LimitRTTIME LimitSIGPENDING
    LimitSTACK LoadCredential LoadCredentialEncrypted LockPersonality LogExtraFields LogFilterPatterns LogLevelMax
    LogNamespace LogRateLimitBurst LogRateLimitIntervalSec LogsDirectory LogsDirectoryAccounting LogsDirectoryMode
    LogsDirectoryQuota ManagedOOMMemoryPressure ManagedOOMMemoryPressureDurationSec ManagedOOMMemoryPressureLimit
    ManagedOOMPreference ManagedOOMSwap MemoryAccounting MemoryDenyWriteExecute MemoryHigh MemoryKSM MemoryLimit
    MemoryLow MemoryMax MemoryMin MemoryPressureThresholdSec MemoryPressureWatch MemorySwapMax MemoryZSwapMax
    MemoryZSwapWriteback MountAPIVFS MountFlags MountImagePolicy MountImages NFTSet NUMAMask NUMAPolicy NetClass
    NetworkNamespacePath Nice NoExecPaths NoNewPrivileges OOMScoreAdjust PAMName PassEnvironment Personality
    PrivateBPF PrivateDevices PrivateIPC PrivateMounts PrivateNetwork PrivatePIDs PrivateTmp PrivateUsers
    ProcSubset ProtectClock ProtectControlGroups ProtectHome ProtectHostname ProtectKernelLogs
    ProtectKernelModules ProtectKernelTunables ProtectProc ProtectSystem ReadOnlyDirectories ReadOnlyPaths
    ReadWriteDirectories ReadWritePaths RemoveIPC RestartKillSignal RestrictAddressFamilies RestrictFileSystems
    RestrictNamespaces RestrictNetworkInterfaces RestrictRealtime RestrictSUIDSGID RootDirectory RootEphemeral
    RootHash RootHashSignature RootImage RootImageOptions RootImagePolicy RootVerity RuntimeDirectory
    RuntimeDirectoryMode RuntimeDirectoryPreserve SELinuxContext SecureBits SendSIGHUP SendSIGKILL SetCredential
    SetCredentialEncrypted SetLoginEnvironment Slice SmackProcessLabel SocketBindAllow SocketBindDeny
    StandardError StandardInput StandardInputData StandardInputText StandardOutput StartupAllowedCPUs
    StartupAllowedMemoryNodes StartupBlockIOWeight StartupCPUShares StartupCPUWeight StartupIOWeight
    StartupMemoryHigh StartupMemoryLow StartupMemoryMax StartupMemorySwapMax StartupMemoryZSwapMax StateDirectory
    StateDirectoryAccounting StateDirectoryMode StateDirectoryQuota SupplementaryGroups SyslogFacility
    SyslogIdentifier SyslogLevel SyslogLevelPrefix SystemCallArchitectures SystemCallErrorNumber SystemCallFilter
    SystemCallLog TTYColumns TTYPath TTYReset TTYRows TTYVHangup TTYVTDisallocate TasksAccounting TasksMax
    TemporaryFileSystem TimeoutCleanSec TimerSlackNSec UMask UnsetEnvironment User UserNamespacePath
    UtmpIdentifier UtmpMode WatchdogSignal WorkingDirectory
"""

KNOWN: Final = {
    "Unit": frozenset(
        [*_UNIT.split(), *(word + name for word in ("Condition", "Assert") for name in _CONDITIONS.split())]
    ),
    "Service": frozenset(_SERVICE.split() + _PROCESSES.split()),
    "Socket": frozenset(_SOCKET.split() + _PROCESSES.split()),
    "Install": frozenset(["Alias", "WantedBy", "RequiredBy", "Also", "DefaultInstance"]),
}
"""By section."""
